"""The parts of the report: figures, tables, pictures. The page is the stage `report`."""
