select {{ commented() }} as x
