select {{ var('everywhere') }} as v
