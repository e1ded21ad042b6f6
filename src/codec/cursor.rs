//! Checked reads and writes of the wire's data types (section 1.5).
