//! HCL to specs. (Being written.)
