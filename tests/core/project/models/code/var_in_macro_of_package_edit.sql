select {{ pack.packed_value() }} as v
