//! Links, addresses of mail, phone numbers.

use memchr::{memchr, memchr2_iter, memmem};

use crate::error::Result;
use crate::interrupt::Steps;

use super::edit::Edit;
use super::sentences::find_marked;

/// Removes links; punctuation at their ends stays.
pub fn remove_links(edit: &mut Edit<'_>, steps: &mut Steps) -> Result<()> {
    let bytes = edit.text().as_bytes();
    let colons = memmem::find_iter(bytes, b"://");
    let mut schemes = colons.filter_map(|colon| Some((find_scheme(bytes, colon)?, colon + 3)));
    let letters = memchr2_iter(b'w', b'W', bytes);
    let mut hosts = letters.filter(|&start| is_host(bytes, start)).map(|start| (start, start + 4));
    let (mut scheme, mut host) = (schemes.next(), hosts.next());
    let mut done = 0;
    while let Some((start, body)) = scheme.into_iter().chain(host).min() {
        steps.take(64)?;
        if scheme == Some((start, body)) {
            scheme = schemes.next();
        } else {
            host = hosts.next();
        }
        if start < done || !bytes.get(body).is_some_and(u8::is_ascii_alphanumeric) {
            continue;
        }
        let size = bytes[body..].iter().position(|&byte| !is_of_url(byte));
        done = size.map_or(bytes.len(), |size| body + size);
        let is_at_end = |byte: &u8| !b".,;:!?')]".contains(byte);
        let last = bytes[..done].iter().rposition(is_at_end).unwrap_or(body);
        edit.remove(start..last + 1, "")?;
    }
    Ok(())
}

/// Where the scheme of a link begins whose `://` stands here.
fn find_scheme(bytes: &[u8], colon: usize) -> Option<usize> {
    [b"https".as_slice(), b"http", b"ftp"].into_iter().find_map(|scheme| {
        let start = colon.checked_sub(scheme.len())?;
        let is_scheme = bytes[start..colon].eq_ignore_ascii_case(scheme);
        let is_first = start == 0 || !bytes[start - 1].is_ascii_alphanumeric();
        (is_scheme && is_first).then_some(start)
    })
}

/// Whether a host begins here that is a link without a scheme.
fn is_host(bytes: &[u8], start: usize) -> bool {
    let found = bytes.get(start..start + 4);
    found.is_some_and(|found| found.eq_ignore_ascii_case(b"www."))
        && (start == 0
            || !matches!(bytes[start - 1],
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'.' | b'/' | b'@' | b'-'))
}

fn is_of_url(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)
}

/// Removes addresses of mail.
pub fn remove_emails(edit: &mut Edit<'_>, steps: &mut Steps) -> Result<()> {
    let bytes = edit.text().as_bytes();
    let mut next = 0;
    while let Some(offset) = memchr(b'@', &bytes[next..]) {
        let at = next + offset;
        steps.take(offset / 8 + 1)?;
        next = at + 1;
        let before = &bytes[edit.done()..at];
        let local = before.iter().rev().take_while(|&&byte| is_local(byte)).count();
        let domain = bytes[next..].iter().take_while(|&&byte| is_domain(byte)).count();
        let domain = &bytes[next..next + domain];
        let size = domain.iter().rposition(|byte| !b".-".contains(byte)).map_or(0, |last| last + 1);
        let domain = &domain[..size];
        let Some(dot) = domain.iter().rposition(|&byte| byte == b'.') else { continue };
        let top = &domain[dot + 1..];
        let is_top = top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic);
        if local > 0 && is_top && dot > 0 && !b".-".contains(&domain[0]) {
            edit.remove(at - local..next + size, "")?;
        }
    }
    Ok(())
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte)
}

fn is_domain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-".contains(&byte)
}

const WIDE_OPEN: &[u8] = "（".as_bytes();
const WIDE_CLOSE: &[u8] = "）".as_bytes();

/// What a phone number begins with.
const PHONE_STARTS: [bool; 256] = {
    let mut marks = [false; 256];
    let mut byte = b'0';
    while byte <= b'9' {
        marks[byte as usize] = true;
        byte += 1;
    }
    marks[b'+' as usize] = true;
    marks[b'(' as usize] = true;
    marks
};

/// Removes phone numbers.
pub fn remove_phone_numbers(edit: &mut Edit<'_>, steps: &mut Steps) -> Result<()> {
    let bytes = edit.text().as_bytes();
    let mut next = 0;
    loop {
        let start = find_marked(bytes, next, &PHONE_STARTS, steps)?;
        if start == bytes.len() {
            return Ok(());
        }
        steps.take(8)?;
        next = start + 1;
        // Brackets of full width are looked for from within: their first byte is that of commas.
        let wide =
            start.checked_sub(WIDE_OPEN.len()).filter(|&wide| bytes[wide..start] == *WIDE_OPEN);
        if let Some(wide) = wide
            && let Some(end) = find_bracketed_end(bytes, wide)
        {
            edit.remove(wide..end, "")?;
            next = end;
            continue;
        }
        if let Some(end) = find_phone_end(bytes, start) {
            edit.remove(start..end, "")?;
            next = end;
        } else if bytes[start].is_ascii_digit() {
            next = end_of_digits(bytes, start);
        }
    }
}

fn end_of_digits(bytes: &[u8], start: usize) -> usize {
    start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether what stands before allows that a phone number begins here.
fn may_begin(bytes: &[u8], start: usize) -> bool {
    match bytes[..start] {
        [.., before] if is_word(before) => false,
        [.., digit, b'-' | b'.' | b',' | b'/' | b':'] => !digit.is_ascii_digit(),
        _ => true,
    }
}

/// Where the land line ends that begins with a bracket of full width here, if one does.
fn find_bracketed_end(bytes: &[u8], start: usize) -> Option<usize> {
    may_begin(bytes, start).then(|| Digits { bytes }.land_line(start)).flatten()
}

/// Where the phone number ends that begins here, if one does.
fn find_phone_end(bytes: &[u8], start: usize) -> Option<usize> {
    if !may_begin(bytes, start) {
        return None;
    }
    let digits = Digits { bytes };
    match bytes[start] {
        b'+' => digits.any_country(start + 1),
        b'(' => digits.land_line(start).or_else(|| digits.north_america(start)),
        _ => digits
            .mobile(start)
            .or_else(|| digits.land_line(start))
            .or_else(|| digits.hot_line(start))
            .or_else(|| digits.north_america(start)),
    }
}

/// The forms of phone numbers: each gives the end of what it matches.
#[derive(Clone, Copy)]
struct Digits<'t> {
    bytes: &'t [u8],
}

impl Digits<'_> {
    fn at(self, place: usize) -> Option<u8> {
        self.bytes.get(place).copied()
    }

    /// The end of exactly so many digits, whatever follows.
    fn some(self, start: usize, count: usize) -> Option<usize> {
        let digits = self.bytes.get(start..start + count)?;
        digits.iter().all(u8::is_ascii_digit).then_some(start + count)
    }

    /// The end of the digits from here, if there are from `least` to `most` of them.
    fn all(self, start: usize, least: usize, most: usize) -> Option<usize> {
        let end = end_of_digits(self.bytes, start);
        (least..=most).contains(&(end - start)).then_some(end)
    }

    fn skip(self, place: usize, separators: &[u8]) -> usize {
        place + usize::from(self.at(place).is_some_and(|byte| separators.contains(&byte)))
    }

    fn take(self, place: usize, separators: &[u8]) -> Option<usize> {
        let next = self.skip(place, separators);
        (next > place).then_some(next)
    }

    /// The end, if a number may end here.
    fn end(self, place: usize) -> Option<usize> {
        match self.bytes[place..] {
            [after, ..] if is_word(after) => None,
            [b'-' | b'.', digit, ..] if digit.is_ascii_digit() => None,
            _ => Some(place),
        }
    }

    /// From 8 to 15 digits, of which as many as can be.
    fn any_country(self, start: usize) -> Option<usize> {
        let mut next = self.some(start, 1)?;
        let mut found = None;
        for count in 2..=15 {
            let bracket = self.skip(next, b" ");
            let digit = if self.at(bracket) == Some(b'(') {
                bracket + 1
            } else if self.at(next) == Some(b')') {
                self.skip(next + 1, b" -")
            } else {
                self.skip(next, b" .-")
            };
            let Some(end) = self.some(digit, 1) else { break };
            next = end;
            if count >= 8 {
                found = self.end(next).or(found);
            }
        }
        found
    }

    fn mobile(self, start: usize) -> Option<usize> {
        let zeros = if self.bytes[start..].starts_with(b"0086") { start + 2 } else { start };
        let is_prefixed = self.bytes[zeros..].starts_with(b"86");
        let start = if is_prefixed { self.skip(zeros + 2, b" -") } else { start };
        let first = self.bytes.get(start..start + 2)?;
        if !matches!(first, [b'1', b'3'..=b'9']) {
            return None;
        }
        let next = self.skip(self.some(start, 3)?, b" -");
        let next = self.skip(self.some(next, 4)?, b" -");
        self.end(self.some(next, 4)?)
    }

    fn land_line(self, start: usize) -> Option<usize> {
        let rest = &self.bytes[start..];
        let brackets = [(b"(".as_slice(), b")".as_slice()), (WIDE_OPEN, WIDE_CLOSE)];
        let around = brackets.into_iter().find(|(open, _)| rest.starts_with(open));
        let area = start + around.map_or(0, |(open, _)| open.len());
        if self.at(area) != Some(b'0') {
            return None;
        }
        let next = self.all(area, 3, 4)?;
        let number = match around {
            Some((_, close)) if self.bytes[next..].starts_with(close) => {
                self.skip(next + close.len(), b" ")
            }
            Some(_) => return None,
            None => self.take(next, b" -")?,
        };
        if !matches!(self.at(number), Some(b'1'..=b'9')) {
            return None;
        }
        let next = self.all(number, 7, 8).or_else(|| {
            let second = self.take(self.all(number, 3, 4)?, b" -")?;
            self.some(second, 4)
        })?;
        if self.at(next) == Some(b'-')
            && let Some(end) = self.all(next + 1, 1, 4)
        {
            return self.end(end);
        }
        self.end(next)
    }

    fn hot_line(self, start: usize) -> Option<usize> {
        let first = self.bytes.get(start..start + 4)?;
        if !matches!(first, b"400-" | b"800-") {
            return None;
        }
        let start = start + 4;
        let parts = |first: usize, second: usize| {
            self.some(self.take(self.all(start, first, first)?, b"-")?, second)
        };
        let end = parts(3, 4).or_else(|| parts(4, 3)).or_else(|| self.all(start, 7, 7))?;
        self.end(end)
    }

    fn north_america(self, start: usize) -> Option<usize> {
        let start = match self.bytes[start..] {
            [b'1', b'-' | b'.' | b' ', ..] => start + 2,
            _ => start,
        };
        let is_bracketed = self.at(start) == Some(b'(');
        let area = start + usize::from(is_bracketed);
        if !matches!(self.at(area), Some(b'2'..=b'9')) {
            return None;
        }
        let next = self.all(area, 3, 3)?;
        let next = if is_bracketed {
            self.skip(self.take(next, b")")?, b" ")
        } else {
            self.take(next, b"-. ")?
        };
        let next = self.take(self.all(next, 3, 3)?, b"-. ")?;
        self.end(self.some(next, 4)?)
    }
}
