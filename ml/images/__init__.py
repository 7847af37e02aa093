"""Pictures as bytes, masks, facts and contact sheets; nothing of what a stage does with them."""
