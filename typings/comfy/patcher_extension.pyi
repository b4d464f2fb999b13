class WrappersMP:
    DIFFUSION_MODEL: str
