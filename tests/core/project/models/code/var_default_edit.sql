select {{ var('unset', 1) }} as v
