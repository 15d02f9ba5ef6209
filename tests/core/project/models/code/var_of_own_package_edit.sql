select {{ var('scoped') }} as v
