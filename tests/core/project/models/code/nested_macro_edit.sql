select {{ nested_outer() }} as x
