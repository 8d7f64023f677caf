//! What a client knows of a thing that it changes: one value, or several after an answer that never
//! came.

use std::fmt::Debug;

/// The values that a thing may have by all that its owner was told.
#[derive(Debug, Clone)]
pub(crate) struct Known<T>(Vec<T>);

impl<T: Debug + PartialEq> Known<T> {
    /// The thing has this value: a server said so.
    pub(crate) fn is(value: T) -> Self {
        Self(vec![value])
    }

    /// The thing was told to take this value, and whether it did is known only if that was
    /// acknowledged.
    pub(crate) fn change(&mut self, value: T, acknowledged: bool) {
        if acknowledged {
            self.0.clear();
        }
        if !self.0.contains(&value) {
            self.0.push(value);
        }
    }

    /// Whether the thing may have this value.
    pub(crate) fn may_be(&self, value: &T) -> bool {
        self.0.contains(value)
    }

    /// The value, if there is no doubt.
    pub(crate) fn certain(&self) -> Option<&T> {
        if let [value] = self.0.as_slice() { Some(value) } else { None }
    }

    /// All values that the thing may have.
    pub(crate) fn candidates(&self) -> &[T] {
        &self.0
    }

    /// The thing was seen, which ends all doubt.
    ///
    /// # Errors
    /// What was expected, when it is something else.
    pub(crate) fn settle(&mut self, seen: T) -> Result<(), String> {
        if !self.may_be(&seen) {
            return Err(format!("it is {seen:?}, and was acknowledged to be {:?}", self.0));
        }
        self.change(seen, true);
        Ok(())
    }
}
