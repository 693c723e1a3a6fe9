"""What torch's compiler warns of by itself, for `pytest.mark.filterwarnings`: tests take warnings for errors."""

# It imports what torch deprecates, looks at `.grad` of every input (a warning that it hides unless warnings are errors), and makes an
# instance of an autograd function.
COMPILER_WARNINGS = (
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
    "ignore:.*should not be instantiated:DeprecationWarning",
)
