select {{ reads_var() }} as v
