//! POSIX access control lists: their xattr form, inheritance, and keeping mode and mask in step. Pure; acl(5) is the rule.
//!
//! Invariant: an [`Acl`] has owner, group and other entries, and a mask when it names anyone else.

use crate::fs::error::{FsError, FsResult};
use bytes::{BufMut, Bytes, BytesMut};

/// The xattr of the list that guards an inode.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The xattr of the list that a directory's children inherit.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const FORMAT: u32 = 2;
const OWNER: u16 = 0x01;
const NAMED_USER: u16 = 0x02;
const GROUP: u16 = 0x04;
const NAMED_GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// One access control list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl {
    rules: Vec<Rule>,
}

impl Acl {
    /// Reads the xattr form; `None` is a list without entries, which means no list.
    ///
    /// # Errors
    /// `Invalid` for another format, a torn list, or one that acl(5) does not allow.
    pub(crate) fn parse(value: &[u8]) -> FsResult<Option<Self>> {
        let invalid = |why: &str| FsError::Invalid(format!("access control list: {why}"));
        let (format, entries) = value
            .split_first_chunk::<4>()
            .ok_or_else(|| invalid("too short"))?;
        if u32::from_le_bytes(*format) != FORMAT {
            return Err(invalid("unknown format"));
        }
        let (entries, torn) = entries.as_chunks::<8>();
        if !torn.is_empty() {
            return Err(invalid("torn entry"));
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let rules: Vec<Rule> = entries
            .iter()
            .map(|&[t0, t1, p0, p1, i0, i1, i2, i3]| Rule {
                tag: u16::from_le_bytes([t0, t1]),
                permissions: u16::from_le_bytes([p0, p1]),
                id: u32::from_le_bytes([i0, i1, i2, i3]),
            })
            .collect();
        let count = |tag: u16| rules.iter().filter(|rule| rule.tag == tag).count();
        let named = count(NAMED_USER) + count(NAMED_GROUP);
        let known = count(OWNER) + count(GROUP) + count(OTHER) + count(MASK) + named;
        let once = [OWNER, GROUP, OTHER].iter().all(|&tag| count(tag) == 1);
        let masked = count(MASK) <= 1 && (named == 0 || count(MASK) == 1);
        if known != rules.len() || !once || !masked || rules.iter().any(|r| r.permissions > 7) {
            return Err(invalid("entries that do not make a list"));
        }
        Ok(Some(Self { rules }))
    }

    /// The xattr form.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(4 + 8 * self.rules.len());
        bytes.put_u32_le(FORMAT);
        for rule in &self.rules {
            bytes.put_u16_le(rule.tag);
            bytes.put_u16_le(rule.permissions);
            bytes.put_u32_le(rule.id);
        }
        bytes.freeze()
    }

    /// Tells whether nine mode bits say all that the list says.
    pub(crate) fn is_minimal(&self) -> bool {
        self.rules
            .iter()
            .all(|rule| [OWNER, GROUP, OTHER].contains(&rule.tag))
    }

    /// The nine mode bits that go with the list: the group bits show the mask.
    pub(crate) fn mode(&self) -> u32 {
        let bits = |tag| u32::from(self.permissions(tag));
        bits(OWNER) << 6 | bits(self.group_class()) << 3 | bits(OTHER)
    }

    /// Follows a chmod: the classes get the bits of `mode`, what is named stays and is masked.
    pub(crate) fn set_mode(&mut self, mode: u32) {
        self.each_class(mode, |_, bits| bits);
    }

    /// Makes a default list the access list of a new child that asked for `mode`; no umask has a say.
    pub(crate) fn restrict(&mut self, mode: u32) {
        self.each_class(mode, |permissions, bits| permissions & bits);
    }

    fn each_class(&mut self, mode: u32, combine: impl Fn(u16, u16) -> u16) {
        let group_class = self.group_class();
        for rule in &mut self.rules {
            let shift = match rule.tag {
                OWNER => 6,
                OTHER => 0,
                tag if tag == group_class => 3,
                _ => continue,
            };
            // Three bits: the cast loses nothing.
            let bits = (mode >> shift & 7) as u16;
            rule.permissions = combine(rule.permissions, bits);
        }
    }

    /// Which entry the group bits of the mode stand for.
    fn group_class(&self) -> u16 {
        if self.rules.iter().any(|rule| rule.tag == MASK) {
            MASK
        } else {
            GROUP
        }
    }

    fn permissions(&self, tag: u16) -> u16 {
        self.rules
            .iter()
            .find(|rule| rule.tag == tag)
            .map_or(0, |rule| rule.permissions)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Builds an xattr value from (tag, permissions, id).
    pub(crate) fn value(rules: &[(u16, u16, u32)]) -> Bytes {
        let rules = rules
            .iter()
            .map(|&(tag, permissions, id)| Rule {
                tag,
                permissions,
                id,
            })
            .collect();
        Acl { rules }.to_bytes()
    }

    /// u::rwx,u:1000:rwx,g::r-x,m::rwx,o::---
    pub(crate) fn extended() -> Bytes {
        value(&[
            (OWNER, 7, u32::MAX),
            (NAMED_USER, 7, 1000),
            (GROUP, 5, u32::MAX),
            (MASK, 7, u32::MAX),
            (OTHER, 0, u32::MAX),
        ])
    }

    /// u::rwx,g::r-x,o::r-x
    pub(crate) fn minimal() -> Bytes {
        value(&[
            (OWNER, 7, u32::MAX),
            (GROUP, 5, u32::MAX),
            (OTHER, 5, u32::MAX),
        ])
    }

    fn parse(value: &Bytes) -> Acl {
        Acl::parse(value).unwrap().unwrap()
    }

    #[test]
    fn the_xattr_form_round_trips() {
        for list in [extended(), minimal()] {
            assert_eq!(parse(&list).to_bytes(), list);
        }
        assert_eq!(Acl::parse(&FORMAT.to_le_bytes()).unwrap(), None);
    }

    #[test]
    fn an_invalid_list_is_refused() {
        let bare = |rules: &[(u16, u16, u32)]| Acl::parse(&value(rules));
        assert!(Acl::parse(b"").is_err());
        assert!(Acl::parse(&1_u32.to_le_bytes()).is_err());
        assert!(Acl::parse(&minimal()[..11]).is_err());
        assert!(bare(&[(OWNER, 7, 0)]).is_err());
        assert!(bare(&[(OWNER, 8, 0), (GROUP, 5, 0), (OTHER, 5, 0)]).is_err());
        assert!(bare(&[(OWNER, 7, 0), (GROUP, 5, 0), (OTHER, 5, 0), (64, 1, 0)]).is_err());
        let unmasked = [
            (OWNER, 7, 0),
            (NAMED_GROUP, 7, 5),
            (GROUP, 5, 0),
            (OTHER, 5, 0),
        ];
        assert!(bare(&unmasked).is_err());
    }

    #[test]
    fn the_group_bits_show_the_mask() {
        assert_eq!(parse(&extended()).mode(), 0o770);
        assert_eq!(parse(&minimal()).mode(), 0o755);
        assert!(parse(&minimal()).is_minimal() && !parse(&extended()).is_minimal());
    }

    #[test]
    fn chmod_moves_the_mask_and_leaves_the_named() {
        let mut list = parse(&extended());
        list.set_mode(0o4641);
        assert_eq!(list.mode(), 0o641);
        assert_eq!(list.permissions(GROUP), 5);
        assert_eq!(list.permissions(NAMED_USER), 7);
    }

    #[test]
    fn a_child_gets_no_more_than_it_asked_for() {
        let mut list = parse(&extended());
        list.restrict(0o666);
        assert_eq!(list.mode(), 0o660);
        assert_eq!(list.permissions(GROUP), 5);
        let mut list = parse(&minimal());
        list.restrict(0o640);
        assert_eq!(list.mode(), 0o640);
    }
}
