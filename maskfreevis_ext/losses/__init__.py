"""Loss terms as pure functions of tensors; they import ``maskfreevis_ext.ops`` only."""
