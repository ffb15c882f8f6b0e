//! Characters read as Python reads them.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::error::Result;
use crate::memory;

/// Appends the lower-case form of a word: Unicode full mapping, as Python's `str.lower`.
///
/// # Errors
/// The memory is refused.
pub fn push_lowercase(word: &str, out: &mut String) -> Result<()> {
    if word.is_ascii() {
        let start = out.len();
        memory::reserve_text(out, word.len())?;
        out.push_str(word);
        out[start..].make_ascii_lowercase();
    } else {
        let lower = lowercase(word)?;
        memory::reserve_text(out, lower.len())?;
        out.push_str(&lower);
    }
    Ok(())
}

/// The lower-case form of a text: Unicode full mapping, as Python's `str.lower`.
///
/// # Errors
/// The memory is refused.
pub fn lowercase(text: &str) -> Result<String> {
    // No character has a form of more than three times its bytes.
    memory::probe(text.len().saturating_mul(3))?;
    Ok(text.to_lowercase())
}

/// Whether Python's `str.isspace` holds: white space and the four ASCII separators.
pub fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

/// Whether Python's `str.isalnum` holds: letters and numbers.
pub fn is_alphanumeric(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_alphanumeric();
    }
    matches!(
        character.general_category_group(),
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number
    )
}

/// Whether the character is a combining mark.
pub fn is_mark(character: char) -> bool {
    !character.is_ascii() && character.general_category_group() == GeneralCategoryGroup::Mark
}
