//! BIO labels and entity types as numbers, and texts as scorers compare them.

use std::cell::Cell;

use crate::error::{Error, Result};
use crate::interrupt::Steps;
use crate::memory;
use crate::text::{Interner, LONG_TEXT, Strings, StringsRef, is_alphanumeric, is_space, lowercase};

/// Labels that are read between two looks at the steps.
const LABELS_AT_ONCE: usize = 1 << 12;

/// A BIO label: outside, or the number of a type with B- or I-.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(u32);

impl Label {
    /// The label `O`.
    pub const OUTSIDE: Self = Self(0);

    /// B- of a type.
    pub fn begin(type_id: u32) -> Self {
        Self((type_id + 1) << 1)
    }

    /// I- of a type.
    pub fn inside(type_id: u32) -> Self {
        Self((type_id + 1) << 1 | 1)
    }

    /// The label of the next word of the same entity.
    #[must_use]
    pub fn continued(self) -> Self {
        if self == Self::OUTSIDE { self } else { Self(self.0 | 1) }
    }

    /// Whether it is I- of some type.
    pub fn is_inside(self) -> bool {
        self.0 & 1 == 1
    }

    /// The number of its type, unless it is `O`.
    pub fn type_id(self) -> Option<u32> {
        (self.0 >> 1).checked_sub(1)
    }
}

/// Label lists that are remembered: rows of a few data sets take turns in shuffled files.
const REMEMBERED_LISTS: usize = 8;

/// Entity types by number, and which of them the current row allows.
#[derive(Debug, Default)]
pub struct Types {
    names: Interner,
    /// The number of each type's normalised name in `normalized`.
    normalized_ids: Vec<u32>,
    normalized: Interner,
    lists: Vec<LabelList>,
    current: usize,
    /// How many lists there have been.
    changes: u64,
    /// The type that was read last.
    last: Cell<u32>,
    scratch: String,
}

/// A label list and the numbers of its types.
#[derive(Debug, Default)]
struct LabelList {
    names: Strings,
    ids: Vec<u32>,
    /// Whether a type is in the list, by number.
    allowed: Vec<bool>,
    number: u64,
}

impl Types {
    /// The number of a type.
    ///
    /// # Errors
    /// The memory is refused, or the caller stops.
    #[inline]
    pub fn intern(&mut self, name: &str) -> Result<u32> {
        let id = self.names.intern(name)?;
        if self.normalized_ids.len() <= id as usize {
            self.normalize_to(id)?;
        }
        Ok(id)
    }

    /// Gives types their normalised names, up to this one: an error left those before it without.
    #[cold]
    #[expect(clippy::cast_possible_truncation, reason = "types have numbers of 32 bits")]
    fn normalize_to(&mut self, id: u32) -> Result<()> {
        while self.normalized_ids.len() <= id as usize {
            self.scratch.clear();
            let name = self.names.get(self.normalized_ids.len() as u32);
            normalize_text_into(name, &mut self.scratch)?;
            memory::push(&mut self.normalized_ids, self.normalized.intern(&self.scratch)?)?;
        }
        Ok(())
    }

    /// The name of a type.
    pub fn name(&self, type_id: u32) -> &str {
        self.names.get(type_id)
    }

    /// The number of a type's normalised name: types that scorers take for the same share it.
    pub fn normalized_id(&self, type_id: u32) -> u32 {
        self.normalized_ids[type_id as usize]
    }

    /// The label as text.
    pub fn label_text(&self, label: Label) -> String {
        match label.type_id() {
            None => "O".to_owned(),
            Some(id) if label.is_inside() => format!("I-{}", self.name(id)),
            Some(id) => format!("B-{}", self.name(id)),
        }
    }

    /// From now on, allows the listed types and no others.
    ///
    /// # Errors
    /// The memory is refused, or the caller stops: then no type is allowed.
    pub fn allow(&mut self, label_list: StringsRef<'_>) -> Result<()> {
        let is_same = |list: &LabelList| list.names.all().equals(label_list);
        if self.lists.get(self.current).is_some_and(is_same) {
            return Ok(());
        }
        if let Some(known) = self.lists.iter().position(is_same) {
            self.current = known;
            return Ok(());
        }
        if self.lists.len() < REMEMBERED_LISTS {
            self.current = self.lists.len();
            self.lists.push(LabelList::default());
        } else {
            self.current = (self.current + 1) % REMEMBERED_LISTS;
        }
        let mut fresh = std::mem::take(&mut self.lists[self.current]);
        fresh.names.clear();
        fresh.ids.clear();
        fresh.allowed.fill(false);
        self.changes += 1;
        fresh.number = self.changes;
        for name in label_list.iter() {
            let id = self.intern(name)?;
            fresh.names.append(name)?;
            memory::push(&mut fresh.ids, id)?;
            if fresh.allowed.len() <= id as usize {
                let more = id as usize + 1 - fresh.allowed.len();
                memory::reserve(&mut fresh.allowed, more)?;
                fresh.allowed.resize(id as usize + 1, false);
            }
            fresh.allowed[id as usize] = true;
        }
        self.lists[self.current] = fresh;
        Ok(())
    }

    /// A number of the list that is allowed: no other list has had it.
    pub fn allowed_number(&self) -> u64 {
        self.lists.get(self.current).map_or(0, |list| list.number)
    }

    /// The numbers of the types that are allowed.
    pub fn allowed_ids(&self) -> &[u32] {
        self.lists.get(self.current).map_or(&[], |list| &list.ids)
    }

    /// Reads a label whose type is allowed.
    #[inline]
    pub fn read_allowed(&self, text: &str) -> Option<Label> {
        if text == "O" { Some(Label::OUTSIDE) } else { self.read_allowed_type(text) }
    }

    #[inline(never)]
    fn read_allowed_type(&self, text: &str) -> Option<Label> {
        let (begins, name) = split_label(text)?;
        // The words of an entity follow each other.
        let previous = self.last.get();
        let id = if self.names.is(previous, name) { previous } else { self.names.find(name)? };
        self.last.set(id);
        let list = self.lists.get(self.current)?;
        if !list.allowed.get(id as usize).copied().unwrap_or(false) {
            return None;
        }
        Some(if begins { Label::begin(id) } else { Label::inside(id) })
    }

    /// Reads a label of any type; none if it has another form.
    ///
    /// # Errors
    /// The memory is refused, or the caller stops.
    #[inline]
    pub fn read(&mut self, text: &str) -> Result<Option<Label>> {
        if text == "O" {
            return Ok(Some(Label::OUTSIDE));
        }
        let Some((begins, name)) = split_label(text) else { return Ok(None) };
        let id = self.intern(name)?;
        Ok(Some(if begins { Label::begin(id) } else { Label::inside(id) }))
    }

    /// Reads a sequence of labels of any types; `name` is for errors.
    ///
    /// # Errors
    /// A label that is neither `O` nor `B-<type>` nor `I-<type>`; the memory is refused, or the
    /// caller stops.
    pub fn read_all(
        &mut self,
        name: &'static str,
        texts: StringsRef<'_>,
        labels: &mut Vec<Label>,
    ) -> Result<()> {
        labels.clear();
        memory::reserve(labels, texts.len())?;
        let mut steps = Steps::default();
        for start in (0..texts.len()).step_by(LABELS_AT_ONCE) {
            let end = texts.len().min(start + LABELS_AT_ONCE);
            steps.take(end - start)?;
            for index in start..end {
                let label = if texts.is_letter(index, b'O') {
                    Label::OUTSIDE
                } else {
                    let text = texts.get(index);
                    let Some(label) = self.read(text)? else {
                        return Err(Error::LabelForm { name, index, label: text.to_owned() });
                    };
                    label
                };
                labels.push(label);
            }
        }
        Ok(())
    }
}

fn split_label(text: &str) -> Option<(bool, &str)> {
    match text.strip_prefix("B-") {
        Some(name) => Some((true, name)),
        None => text.strip_prefix("I-").map(|name| (false, name)),
    }
}

/// Appends lower-case text without ASCII punctuation, articles and extra white space.
///
/// An article is a whole run of letters and numbers, after punctuation is gone.
///
/// # Errors
/// The memory is refused, or the caller stops.
pub fn normalize_text_into(text: &str, out: &mut String) -> Result<()> {
    let mut bytes = std::mem::take(out).into_bytes();
    normalize_bytes_into(text, &mut bytes)?;
    // Whole characters went in.
    *out = String::from_utf8(bytes).unwrap_or_default();
    Ok(())
}

pub(crate) fn normalize_bytes_into(text: &str, out: &mut Vec<u8>) -> Result<()> {
    // Nothing is longer than the lower-cased text, spaces included.
    if text.is_ascii() {
        memory::reserve(out, text.len())?;
        let characters = text.bytes().map(|byte| (ASCII_KINDS[usize::from(byte)], byte));
        let write = |byte: u8, out: &mut Vec<u8>| out.push(byte.to_ascii_lowercase());
        normalize_steps(text.len(), characters, write, out)
    } else {
        let lower = lowercase(text)?;
        memory::reserve(out, lower.len())?;
        let characters = lower.chars().map(|character| (CharacterKind::of(character), character));
        let write = |character: char, out: &mut Vec<u8>| {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        };
        normalize_steps(lower.len(), characters, write, out)
    }
}

/// Normalises characters; in a long text the caller is asked now and then.
fn normalize_steps<C>(
    bytes: usize,
    characters: impl Iterator<Item = (CharacterKind, C)>,
    write: impl Fn(C, &mut Vec<u8>),
    out: &mut Vec<u8>,
) -> Result<()> {
    if bytes < LONG_TEXT {
        normalize_characters(characters, write, out);
        return Ok(());
    }
    let (mut steps, mut stopped) = (Steps::default(), Ok(()));
    let watched = characters.take_while(|_| {
        stopped = steps.take(1);
        stopped.is_ok()
    });
    normalize_characters(watched, write, out);
    stopped
}

/// What a character is to [`normalize_text_into`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CharacterKind {
    Alphanumeric,
    Punctuation,
    Space,
    Other,
}

impl CharacterKind {
    fn of(character: char) -> Self {
        if is_alphanumeric(character) {
            Self::Alphanumeric
        } else if character.is_ascii_punctuation() {
            Self::Punctuation
        } else if is_space(character) {
            Self::Space
        } else {
            Self::Other
        }
    }
}

/// The kinds of the ASCII characters.
const ASCII_KINDS: [CharacterKind; 128] = {
    let mut kinds = [CharacterKind::Other; 128];
    let mut code = 0_u8;
    while code < 128 {
        kinds[code as usize] = if code.is_ascii_alphanumeric() {
            CharacterKind::Alphanumeric
        } else if code.is_ascii_punctuation() {
            CharacterKind::Punctuation
        } else if matches!(code, 0x09..=0x0d | 0x1c..=0x20) {
            CharacterKind::Space
        } else {
            CharacterKind::Other
        };
        code += 1;
    }
    kinds
};

fn normalize_characters<C>(
    characters: impl Iterator<Item = (CharacterKind, C)>,
    write: impl Fn(C, &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let mut space_before = false; // white space was read since the last character was written
    let mut run: Option<(usize, bool)> = None; // where a run begins, and whether a space is before
    let end_run = |run: Option<(usize, bool)>, out: &mut Vec<u8>| {
        let Some((begin, spaced)) = run else { return false };
        let is_article = matches!(&out[begin..], b"a" | b"an" | b"the");
        if is_article {
            out.truncate(begin - usize::from(spaced));
        }
        is_article
    };
    for (kind, character) in characters {
        match kind {
            CharacterKind::Punctuation => {}
            CharacterKind::Alphanumeric => {
                if run.is_none() {
                    let spaced = space_before && out.len() > start;
                    if spaced {
                        out.push(b' ');
                    }
                    run = Some((out.len(), spaced));
                    space_before = false;
                }
                write(character, out);
            }
            CharacterKind::Space => {
                end_run(run.take(), out);
                space_before = true;
            }
            CharacterKind::Other => {
                space_before |= end_run(run.take(), out);
                if space_before && out.len() > start {
                    out.push(b' ');
                }
                space_before = false;
                write(character, out);
            }
        }
    }
    end_run(run, out);
}
