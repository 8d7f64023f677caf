//! Values as text: what every value with a grammar is besides, and enums whose variants are words.

/// For types that can be read from text and say theirs by `as_str`: shown as that, and by
/// `#[serde(try_from = "String", into = "String")]` read and written as it.
#[macro_export]
macro_rules! text_value {
    ($($name:ident: $invalid:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = $invalid;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.as_str().to_owned()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

pub use text_value;

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
