//! A shared value whose type the compiler need not look through.
//!
//! Plans and parsed statements are made of hundreds of types that hold each other. Whether such a value may go to another thread is worked out
//! anew for each function that takes something with it along: seconds each time, minutes for a crate. Behind a trait it is known.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A shared value behind a trait.
pub struct Opaque<T>(Arc<dyn Holds<T> + Send + Sync>);

trait Holds<T> {
    fn value(&self) -> &T;
}

impl<T> Holds<T> for T {
    fn value(&self) -> &T {
        self
    }
}

impl<T: Send + Sync + 'static> Opaque<T> {
    /// Shares a value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Clone for Opaque<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Opaque<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().value()
    }
}

impl<T: fmt::Debug> fmt::Debug for Opaque<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().value().fmt(formatter)
    }
}
