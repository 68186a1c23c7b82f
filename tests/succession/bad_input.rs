//! Token services, APIs and clocks that do what they should not.
