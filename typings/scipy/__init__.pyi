from . import ndimage as ndimage
from . import optimize as optimize
from . import sparse as sparse
