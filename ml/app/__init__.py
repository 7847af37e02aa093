"""The app: words tried on pictures in a browser, on this machine alone.

Behind each tab stands a module without Gradio (`drawing`, `finding`, `browsing`, `comparing`), so
that what it answers can be tested and measured without a browser; `tab_*` has what is on the page.
Nothing here keeps a person's pictures between two answers: what is shown is in the browser.
"""
