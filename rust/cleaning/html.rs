//! Tags, comments, and scripts and styles with what they hold.

use memchr::{memchr, memchr2, memmem};

use crate::error::Result;
use crate::interrupt::Steps;

use super::edit::Edit;

/// Elements that stand in a line of text, in order.
const INLINE: [&str; 52] = [
    "a", "abbr", "acronym", "area", "b", "base", "basefont", "bdi", "bdo", "big", "cite", "code",
    "data", "datalist", "del", "dfn", "em", "embed", "font", "g", "i", "img", "input", "ins",
    "kbd", "label", "mark", "meter", "output", "picture", "progress", "q", "rb", "rp", "rt", "rtc",
    "ruby", "s", "samp", "small", "source", "span", "strike", "strong", "sub", "sup", "svg",
    "time", "tt", "u", "var", "wbr",
];

/// Elements that begin a line or a box of their own, in order.
const BLOCK: [&str; 75] = [
    "address",
    "applet",
    "article",
    "aside",
    "audio",
    "blockquote",
    "body",
    "br",
    "button",
    "canvas",
    "caption",
    "center",
    "col",
    "colgroup",
    "dd",
    "details",
    "dialog",
    "dir",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "frame",
    "frameset",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hgroup",
    "hr",
    "html",
    "iframe",
    "legend",
    "li",
    "link",
    "main",
    "map",
    "menu",
    "meta",
    "nav",
    "noframes",
    "noscript",
    "object",
    "ol",
    "optgroup",
    "option",
    "p",
    "param",
    "pre",
    "script",
    "section",
    "select",
    "style",
    "summary",
    "table",
    "tbody",
    "td",
    "template",
    "textarea",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "track",
    "ul",
    "video",
];

/// Bytes of the longest name.
const LONGEST_NAME: usize = 10;

/// Removes them; a space stands for each tag that begins a line or a box.
pub fn remove(edit: &mut Edit<'_>, steps: &mut Steps) -> Result<()> {
    let bytes = edit.text().as_bytes();
    let mut scanner = Scanner { bytes, comment_end: None, closings: [None; 2] };
    let mut start = 0;
    while let Some(offset) = memchr(b'<', &bytes[start..]) {
        let place = start + offset;
        steps.take(offset / 8 + 1)?;
        start = place + 1;
        if let Some((end, instead)) = scanner.find_end(place, steps)? {
            edit.remove(place..end, instead)?;
            start = end;
        }
    }
    Ok(())
}

/// What was found ahead is kept, so that no part of a text is searched twice for the same.
struct Scanner<'t> {
    bytes: &'t [u8],
    /// The first end of a comment at or after where it was looked for; the text's length if none.
    comment_end: Option<usize>,
    /// The same for `</script` and `</style`.
    closings: [Option<usize>; 2],
}

impl Scanner<'_> {
    /// Where what begins at a `<` ends, and what stands in its place; none if it is text.
    fn find_end(
        &mut self,
        place: usize,
        steps: &mut Steps,
    ) -> Result<Option<(usize, &'static str)>> {
        let rest = &self.bytes[place..];
        if rest.starts_with(b"<!--") {
            let end = self.find_comment_end(place + 4);
            if end < self.bytes.len() {
                return Ok(Some((end + 3, "")));
            }
        }
        let is_declaration = |name: &[u8]| {
            rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        for name in [b"<!doctype".as_slice(), b"<?xml"] {
            if is_declaration(name) {
                return Ok(self.find_tag_end(place + name.len()).map(|end| (end, "")));
            }
        }
        let is_closing = rest.get(1) == Some(&b'/');
        let name_start = 1 + usize::from(is_closing);
        let name = &rest[name_start.min(rest.len())..];
        let size =
            name.iter().take(LONGEST_NAME + 1).position(|byte| !byte.is_ascii_alphanumeric());
        let Some(size) = size else { return Ok(None) };
        let (name, after) = (&name[..size], name[size]);
        if !(is_white(after) && may_begin_attribute(&rest[name_start + size..])
            || matches!(after, b'>' | b'/'))
        {
            return Ok(None);
        }
        let Some(is_block) = find_element(name) else { return Ok(None) };
        let Some(end) = self.find_tag_end(place + name_start + size) else { return Ok(None) };
        let instead = if is_block { " " } else { "" };
        let number = match size {
            6 if !is_closing && name.eq_ignore_ascii_case(b"script") => 0,
            5 if !is_closing && name.eq_ignore_ascii_case(b"style") => 1,
            _ => return Ok(Some((end, instead))),
        };
        let closing = self.find_closing(number, end, steps)?;
        let name_end = closing + 2 + size;
        Ok(Some((self.find_tag_end(name_end.min(self.bytes.len())).unwrap_or(end), instead)))
    }

    /// Where the tag ends that goes on here: behind the `>` before the next `<`.
    fn find_tag_end(&self, start: usize) -> Option<usize> {
        let end = start + memchr2(b'<', b'>', &self.bytes[start..])?;
        (self.bytes[end] == b'>').then_some(end + 1)
    }

    fn find_comment_end(&mut self, start: usize) -> usize {
        match self.comment_end {
            Some(end) if end >= start => end,
            _ => {
                let rest = self.bytes.get(start..).unwrap_or_default();
                let found = memmem::find(rest, b"-->").map(|offset| start + offset);
                *self.comment_end.insert(found.unwrap_or(self.bytes.len()))
            }
        }
    }

    fn find_closing(&mut self, number: usize, start: usize, steps: &mut Steps) -> Result<usize> {
        if let Some(place) = self.closings[number].filter(|&place| place >= start) {
            return Ok(place);
        }
        let name = [b"script".as_slice(), b"style"][number];
        let mut next = start;
        while let Some(offset) = memmem::find(&self.bytes[next..], b"</") {
            steps.take(offset / 8 + 1)?;
            let place = next + offset;
            let found = self.bytes.get(place + 2..place + 2 + name.len());
            if found.is_some_and(|found| found.eq_ignore_ascii_case(name)) {
                return Ok(*self.closings[number].insert(place));
            }
            next = place + 2;
        }
        Ok(*self.closings[number].insert(self.bytes.len()))
    }
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

/// Whether behind white space the tag ends, or an attribute's name begins: `a <b && c> d` has none.
fn may_begin_attribute(rest: &[u8]) -> bool {
    rest.iter().find(|&&byte| !is_white(byte)).is_some_and(|&byte| {
        byte.is_ascii_alphabetic()
            || matches!(byte, b'>' | b'/' | b'_' | b':' | b'@' | b'"' | b'\'')
    })
}

/// Whether an element begins a line or a box; none if there is no such element.
fn find_element(name: &[u8]) -> Option<bool> {
    let mut lower = [0; LONGEST_NAME];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let is_in =
        |names: &[&str]| names.binary_search_by_key(&&*lower, |name| name.as_bytes()).is_ok();
    if is_in(&BLOCK) {
        return Some(true);
    }
    is_in(&INLINE).then_some(false)
}
