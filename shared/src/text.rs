//! Values as text: what every value with a grammar is besides, and enums whose variants are words.

/// For types that are read from text and shown as it:
/// `#[serde(try_from = "String", into = "String")]` reads and writes them so too.
#[macro_export]
macro_rules! through_text {
    ($name:ident: $invalid:ty) => {
        impl TryFrom<String> for $name {
            type Error = $invalid;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

pub use through_text;

/// The same for types that say their text by `as_str`.
#[macro_export]
macro_rules! shown_as_str {
    ($($name:ident: $invalid:ty),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        $crate::text::through_text!($name: $invalid);
    )*};
}

pub use shown_as_str;

/// A value that is its text, all of which `$check` has found right.
macro_rules! text_value {
    ($(#[$about:meta])* pub struct $name:ident: $invalid:ty, $check:ident) => {
        $(#[$about])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The value as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $invalid;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        $crate::text::shown_as_str!($name: $invalid);
    };
}

pub(crate) use text_value;

/// An enum, `Copy`, of which each variant has a word: for metrics, the log, a database or people.
#[macro_export]
macro_rules! words {
    ($(#[$about:meta])* $vis:vis enum $name:ident {
        $($(#[$of_it:meta])* $variant:ident = $word:literal,)*
    }) => {
        $(#[$about])*
        $vis enum $name {
            $($(#[$of_it])* $variant,)*
        }

        impl $name {
            /// The word for it.
            $vis const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

pub use words;
