//! Bytes and text that nobody can guess.

use ring::{
    error::Unspecified,
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

/// `N` random bytes.
///
/// # Errors
/// When the system gives no randomness.
pub fn bytes<const N: usize>() -> Result<[u8; N], Unspecified> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(bytes)
}

/// `length` characters of `alphabet`, each as likely as any other.
///
/// # Errors
/// When the system gives no randomness.
pub fn text(alphabet: &[u8], length: usize) -> Result<Zeroizing<String>, Unspecified> {
    let random = SystemRandom::new();
    let mut text = Zeroizing::new(String::with_capacity(length));
    // Bytes beyond the last multiple would favour the first letters.
    let fair = 256 - 256 % alphabet.len();
    while text.len() < length {
        let mut byte = [0];
        random.fill(&mut byte)?;
        if usize::from(byte[0]) < fair {
            text.push(char::from(alphabet[usize::from(byte[0]) % alphabet.len()]));
        }
    }
    Ok(text)
}
