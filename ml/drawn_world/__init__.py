"""The drawn world: scenes of twenty classes with exact masks and captions.

`world.draw_scene` draws a scene, `benchmark.benchmark_scenes` the 400 that are measured on,
`captions` holds their words. No model of the library imports this package.
"""
