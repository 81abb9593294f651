//! Where Cap'n Proto puts the members of a struct. Pure: sizes in, offsets out.
//!
//! The language needs two shapes: a struct whose members stand side by side, and a union whose
//! members share space. A member of either may be *optional*: a named union of nothing and the
//! value. The rules below are those of the official compiler for any nesting of unions and
//! groups, so that what is built here agrees with it bit by bit:
//!
//! - members are placed in the order of their ordinals and never move again;
//! - a scalar takes the smallest *hole* (free space left by alignment) that it fits in, otherwise
//!   a new word at the end;
//! - a union owns *locations*, places in the scope around it. Each of its groups lays its members
//!   into these locations from scratch, asks for a location to grow into the free space behind
//!   it, and only then has a new one made;
//! - the discriminant of a union, 16 bits, is placed when its second group gets its first member.
//!
//! Invariant: members of a struct never overlap, and members of a union overlap only with those
//! of other cases. It does not know types, names or ids.
//!
//! Source of the rules: `StructLayout` of Cap'n Proto's compiler (`node-translator.c++`).

/// What a member takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// Nothing: a union's case without a value.
    Void,
    /// 2^n bits of the data section, n at most 6.
    Bits(u32),
    /// One pointer.
    Pointer,
}

/// What is asked for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The size of its value.
    pub size: Size,
    /// True for a union of nothing and the value, false for the value alone.
    pub optional: bool,
}

/// How the members relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// All of them are there at once.
    Struct,
    /// One of them is there at a time.
    Union,
}

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// In units of the value's own size; an index for a pointer; 0 for nothing.
    pub offset: u32,
    /// For an optional member: where its discriminant is, in units of 16 bits.
    pub discriminant: Option<u32>,
}

/// A struct with everything placed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Words of the data section.
    pub data_words: u16,
    /// Words of the pointer section.
    pub pointers: u16,
    /// For a union: where its discriminant is, in units of 16 bits.
    pub discriminant: Option<u32>,
    /// Where the members are, in the order they were asked for.
    pub places: Vec<Place>,
}

/// Places `members`, given in the order of their ordinals.
///
/// # Panics
/// If a section would exceed 65,535 words; the resolver bounds the number of members.
#[must_use]
pub fn lay_out(shape: Shape, members: &[Request]) -> Layout {
    let mut plan = Plan::default();
    let root = match shape {
        Shape::Struct => None,
        Shape::Union => Some(plan.new_union(Scope::Top)),
    };
    let mut places = Vec::with_capacity(members.len());
    for member in members {
        let scope = root.map_or(Scope::Top, |union| plan.new_group(union));
        places.push(plan.member(scope, *member));
    }
    let fits = "a section of at most 65,535 words";
    Layout {
        discriminant: root.map(|union| plan.discriminant(union)),
        data_words: plan.data_words.try_into().expect(fits),
        pointers: plan.pointers.try_into().expect(fits),
        places,
    }
}

/// lg of the bits of a discriminant.
const DISCRIMINANT: u32 = 4;
/// lg of the bits of a word.
const WORD: u32 = 6;

/// Where a member may be added.
#[derive(Clone, Copy)]
enum Scope {
    Top,
    /// Index into [`Plan::groups`].
    Group(usize),
}

#[derive(Default)]
struct Plan {
    data_words: u32,
    pointers: u32,
    holes: Holes,
    unions: Vec<Union>,
    groups: Vec<Group>,
}

struct Union {
    scope: Scope,
    /// Groups that have a member.
    inhabited: u32,
    discriminant: Option<u32>,
    locations: Vec<Location>,
    pointers: Vec<u32>,
}

/// A part of the data section that a union owns.
#[derive(Clone, Copy)]
struct Location {
    lg: u32,
    offset: u32,
}

struct Group {
    union: usize,
    inhabited: bool,
    /// What this group has taken of each location of its union, as far as it looked.
    used: Vec<Usage>,
    pointers_used: usize,
}

/// What a group has taken of a location: the first 2^lg bits of it but for the holes.
#[derive(Clone, Copy, Default)]
struct Usage {
    lg: Option<u32>,
    holes: Holes,
}

/// Free space, at most one of each size below a word: offset in units of the size, 0 for none.
/// (No hole has offset 0, since the first member is placed there.)
#[derive(Clone, Copy, Default)]
struct Holes([u32; WORD as usize]);

impl Holes {
    /// Takes 2^lg bits out of the smallest hole that has them.
    fn take(&mut self, lg: u32) -> Option<u32> {
        let hole = self.0.get_mut(lg as usize)?;
        if *hole != 0 {
            return Some(core::mem::take(hole));
        }
        let offset = self.take(lg + 1)? * 2;
        self.0[lg as usize] = offset + 1;
        Some(offset)
    }

    /// Notes what is left of a space of 2^end bits after the first use of it: `offset`, in units
    /// of 2^lg bits, is where the free part begins.
    fn add(&mut self, lg: u32, mut offset: u32, end: u32) {
        for hole in &mut self.0[lg as usize..end as usize] {
            *hole = offset;
            offset = offset.div_ceil(2);
        }
    }

    /// Grows what lies at `offset` by 2^`factor` into the holes behind it.
    fn expand(&mut self, lg: u32, offset: u32, factor: u32) -> bool {
        if factor == 0 {
            return true;
        }
        if self.0.get(lg as usize) != Some(&(offset + 1)) {
            return false;
        }
        let expanded = self.expand(lg + 1, offset / 2, factor - 1);
        if expanded {
            self.0[lg as usize] = 0;
        }
        expanded
    }

    fn smallest(&self, lg: u32) -> Option<u32> {
        (lg..WORD).find(|lg| self.0[*lg as usize] != 0)
    }
}

impl Usage {
    /// The size of the space that a value of 2^lg bits would be taken from, if there is any
    /// without growing the location.
    fn best(&self, location: Location, lg: u32) -> Option<u32> {
        let Some(used) = self.lg else {
            return (lg <= location.lg).then_some(location.lg);
        };
        if lg >= used {
            return (lg < location.lg).then_some(lg);
        }
        self.holes
            .smallest(lg)
            .or_else(|| (used < location.lg).then_some(used))
    }

    /// Takes what [`Usage::best`] has found; the offset counts from the start of the location.
    fn take(&mut self, lg: u32) -> u32 {
        let Some(used) = self.lg else {
            self.lg = Some(lg);
            return 0;
        };
        if lg >= used {
            self.holes.add(used, 1, lg);
            self.lg = Some(lg + 1);
            return 1;
        }
        self.holes.take(lg).unwrap_or_else(|| {
            let offset = 1 << (used - lg);
            self.holes.add(lg, offset + 1, used);
            self.lg = Some(used + 1);
            offset
        })
    }
}

impl Plan {
    fn new_union(&mut self, scope: Scope) -> usize {
        let (locations, pointers) = (Vec::new(), Vec::new());
        self.unions.push(Union {
            scope,
            inhabited: 0,
            discriminant: None,
            locations,
            pointers,
        });
        self.unions.len() - 1
    }

    fn new_group(&mut self, union: usize) -> Scope {
        self.groups.push(Group {
            union,
            inhabited: false,
            used: Vec::new(),
            pointers_used: 0,
        });
        Scope::Group(self.groups.len() - 1)
    }

    fn member(&mut self, scope: Scope, member: Request) -> Place {
        if !member.optional {
            return Place {
                offset: self.value(scope, member.size),
                discriminant: None,
            };
        }
        let union = self.new_union(scope);
        let none = self.new_group(union);
        self.value(none, Size::Void);
        let some = self.new_group(union);
        let offset = self.value(some, member.size);
        Place {
            offset,
            discriminant: Some(self.discriminant(union)),
        }
    }

    fn value(&mut self, scope: Scope, size: Size) -> u32 {
        match size {
            Size::Void => {
                self.inhabit(scope);
                0
            }
            Size::Bits(lg) => self.data(scope, lg),
            Size::Pointer => self.pointer(scope),
        }
    }

    /// The discriminant of a union, placed now if it was not yet.
    fn discriminant(&mut self, union: usize) -> u32 {
        if let Some(offset) = self.unions[union].discriminant {
            return offset;
        }
        let offset = self.data(self.unions[union].scope, DISCRIMINANT);
        self.unions[union].discriminant = Some(offset);
        offset
    }

    /// Notes that a scope has a member, in all the unions around it.
    fn inhabit(&mut self, scope: Scope) {
        let Scope::Group(group) = scope else { return };
        let union = self.groups[group].union;
        if !core::mem::replace(&mut self.groups[group].inhabited, true) {
            self.unions[union].inhabited += 1;
            if self.unions[union].inhabited == 2 {
                self.discriminant(union);
            }
        }
        self.inhabit(self.unions[union].scope);
    }

    fn pointer(&mut self, scope: Scope) -> u32 {
        self.inhabit(scope);
        let Scope::Group(group) = scope else {
            self.pointers += 1;
            return self.pointers - 1;
        };
        let Group {
            union,
            pointers_used,
            ..
        } = self.groups[group];
        self.groups[group].pointers_used += 1;
        if let Some(offset) = self.unions[union].pointers.get(pointers_used) {
            return *offset;
        }
        let offset = self.pointer(self.unions[union].scope);
        self.unions[union].pointers.push(offset);
        offset
    }

    fn data(&mut self, scope: Scope, lg: u32) -> u32 {
        self.inhabit(scope);
        let Scope::Group(group) = scope else {
            return self.holes.take(lg).unwrap_or_else(|| {
                let offset = self.data_words << (WORD - lg);
                self.data_words += 1;
                self.holes.add(lg, offset + 1, WORD);
                offset
            });
        };
        let union = self.groups[group].union;
        let locations = self.unions[union].locations.len();
        self.groups[group].used.resize(locations, Usage::default());
        let best = (0..locations)
            .filter_map(|index| {
                let location = self.unions[union].locations[index];
                Some((self.groups[group].used[index].best(location, lg)?, index))
            })
            .min();
        if let Some((_, index)) = best {
            let offset = self.groups[group].used[index].take(lg);
            return self.absolute(union, index, lg, offset);
        }
        for index in 0..locations {
            if let Some(offset) = self.grow_for(group, index, lg) {
                return self.absolute(union, index, lg, offset);
            }
        }
        let offset = self.data(self.unions[union].scope, lg);
        self.unions[union].locations.push(Location { lg, offset });
        self.groups[group].used.push(Usage {
            lg: Some(lg),
            holes: Holes::default(),
        });
        offset
    }

    fn absolute(&self, union: usize, location: usize, lg: u32, offset: u32) -> u32 {
        let location = self.unions[union].locations[location];
        (location.offset << (location.lg - lg)) + offset
    }

    /// Makes room for a value in a location that has none, by growing the location.
    fn grow_for(&mut self, group: usize, index: usize, lg: u32) -> Option<u32> {
        let union = self.groups[group].union;
        match self.groups[group].used[index].lg {
            None => self.grow_location(union, index, lg).then(|| {
                self.groups[group].used[index].lg = Some(lg);
                0
            }),
            Some(used) => {
                let wanted = used.max(lg) + 1;
                if !self.grow_location(union, index, wanted) {
                    return None;
                }
                let usage = &mut self.groups[group].used[index];
                usage.holes.add(used, 1, wanted);
                usage.lg = Some(wanted);
                usage.holes.take(lg)
            }
        }
    }

    fn grow_location(&mut self, union: usize, index: usize, lg: u32) -> bool {
        let location = self.unions[union].locations[index];
        if lg <= location.lg {
            return true;
        }
        let factor = lg - location.lg;
        let scope = self.unions[union].scope;
        let grown = self.expand(scope, location, factor);
        if grown {
            self.unions[union].locations[index] = Location {
                lg,
                offset: location.offset >> factor,
            };
        }
        grown
    }

    /// Grows what lies at `place` in `scope` by 2^`factor`, if what follows it is free.
    fn expand(&mut self, scope: Scope, place: Location, factor: u32) -> bool {
        let Scope::Group(group) = scope else {
            return self.holes.expand(place.lg, place.offset, factor);
        };
        if place.lg + factor > WORD || place.offset & ((1 << factor) - 1) != 0 {
            return false;
        }
        let union = self.groups[group].union;
        let within =
            |l: &Location| l.lg >= place.lg && place.offset >> (l.lg - place.lg) == l.offset;
        let Some(index) = self.unions[union].locations.iter().position(within) else {
            return false;
        };
        let location = self.unions[union].locations[index];
        let offset = place.offset - (location.offset << (location.lg - place.lg));
        let used = self.groups[group].used[index].lg;
        if offset != 0 || used != Some(place.lg) {
            return self.groups[group].used[index]
                .holes
                .expand(place.lg, offset, factor);
        }
        let wanted = place.lg + factor;
        let grown = self.grow_location(union, index, wanted);
        if grown {
            self.groups[group].used[index].lg = Some(wanted);
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(lg: u32) -> Request {
        Request {
            size: Size::Bits(lg),
            optional: false,
        }
    }

    fn optional(lg: u32) -> Request {
        Request {
            size: Size::Bits(lg),
            optional: true,
        }
    }

    /// Offsets, and discriminants of optional members.
    fn places(layout: &Layout) -> Vec<(u32, Option<u32>)> {
        let places = layout.places.iter();
        places
            .map(|place| (place.offset, place.discriminant))
            .collect()
    }

    #[test]
    fn small_members_fill_the_holes_of_large_ones() {
        let layout = lay_out(Shape::Struct, &[0, 5, 3, 6, 0, 4].map(plain));
        let offsets: Vec<_> = layout.places.iter().map(|place| place.offset).collect();
        assert_eq!(offsets, [0, 1, 1, 1, 1, 1]);
        assert_eq!((layout.data_words, layout.pointers), (2, 0));
    }

    #[test]
    fn an_optional_member_is_a_discriminant_and_a_value() {
        let layout = lay_out(
            Shape::Struct,
            &[plain(3), optional(5), plain(0), optional(0)],
        );
        // The discriminant comes first, at the second member of the union: nothing, then a value.
        assert_eq!(
            places(&layout),
            [(0, None), (1, Some(1)), (8, None), (9, Some(4))]
        );
        assert_eq!(layout.data_words, 2);
    }

    #[test]
    fn the_cases_of_a_union_share_their_space() {
        let pointer = Request {
            size: Size::Pointer,
            optional: false,
        };
        let void = Request {
            size: Size::Void,
            optional: false,
        };
        let layout = lay_out(
            Shape::Union,
            &[plain(6), pointer, void, plain(5), pointer, optional(3)],
        );
        assert_eq!((layout.data_words, layout.pointers), (2, 1));
        assert_eq!(layout.discriminant, Some(4));
        assert_eq!(
            places(&layout),
            [
                (0, None),
                (0, None),
                (0, None),
                (0, None),
                (0, None),
                (2, Some(0))
            ]
        );
    }

    /// All sorts of member lists.
    fn requests(seed: u64) -> Vec<Request> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let count = 2 + next() % 30;
        let request = |_| {
            let size = match next() % 8 {
                0 => Size::Void,
                1 => Size::Pointer,
                n => Size::Bits([0, 0, 3, 4, 5, 6][n as usize - 2]),
            };
            Request {
                size,
                optional: matches!(size, Size::Bits(_)) && next() % 3 == 0,
            }
        };
        (0..count).map(request).collect()
    }

    #[test]
    fn members_never_move_when_others_are_appended() {
        for seed in 1..400 {
            let requests = requests(seed);
            for shape in [Shape::Struct, Shape::Union] {
                let whole = lay_out(shape, &requests);
                for count in 2..requests.len() {
                    let part = lay_out(shape, &requests[..count]);
                    assert_eq!(part.places, whole.places[..count], "seed {seed}");
                    assert_eq!(part.discriminant, whole.discriminant, "seed {seed}");
                    assert!(part.data_words <= whole.data_words, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn members_of_a_struct_never_overlap() {
        for seed in 1..400 {
            let requests = requests(seed);
            let layout = lay_out(Shape::Struct, &requests);
            let mut bits = vec![false; usize::from(layout.data_words) * 64];
            let mut pointers = vec![false; usize::from(layout.pointers)];
            let mut take = |size, offset: u32| match size {
                Size::Void => {}
                Size::Pointer => {
                    let taken = &mut pointers[offset as usize];
                    assert!(!std::mem::replace(taken, true), "seed {seed}");
                }
                Size::Bits(lg) => {
                    let start = (offset << lg) as usize;
                    for bit in &mut bits[start..start + (1 << lg)] {
                        assert!(!std::mem::replace(bit, true), "seed {seed}");
                    }
                }
            };
            for (request, place) in requests.iter().zip(&layout.places) {
                take(request.size, place.offset);
                if let Some(offset) = place.discriminant {
                    take(Size::Bits(DISCRIMINANT), offset);
                }
            }
        }
    }
}
