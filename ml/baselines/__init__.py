"""What the grounding module is compared with: attention maps of DAAM and of OVAM."""
