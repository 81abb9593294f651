//! From IDL types to [`layout`] requests: which members are pointers, bits or optional.
//!
//! Shared by the schema and by the Rust codecs, so that both name the same offsets.

use partha_idl::model::{Field, Type, Variant};

use crate::layout::{Layout, Place, Request, Shape, Size, lay_out};

/// A pointer that may be null.
const POINTER: Request = Request {
    size: Size::Pointer,
    optional: false,
};

/// What a member of type `ty` takes.
pub(crate) fn request(ty: &Type) -> Request {
    match ty {
        Type::Option(inner) => {
            let inner = request(inner);
            Request {
                optional: inner.size != Size::Pointer,
                ..inner
            }
        }
        ty => Request {
            size: size(ty),
            optional: false,
        },
    }
}

fn size(ty: &Type) -> Size {
    match ty {
        Type::Bool => Size::Bits(0),
        Type::I8 | Type::U8 => Size::Bits(3),
        Type::I16 | Type::U16 | Type::Enum(_) => Size::Bits(4),
        Type::I32 | Type::U32 | Type::F32 => Size::Bits(5),
        Type::I64 | Type::U64 | Type::F64 | Type::Timestamp | Type::Duration => Size::Bits(6),
        Type::String
        | Type::Bytes
        | Type::Uid
        | Type::List(_)
        | Type::Map(..)
        | Type::Option(_)
        | Type::Struct(_)
        | Type::Union(_)
        | Type::Interface(_) => Size::Pointer,
    }
}

/// A layout whose members are in the order of declaration.
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    /// Sizes and discriminant; its places are in the order of declaration.
    pub(crate) layout: Layout,
    /// Cap'n Proto's ordinals, in the order of declaration; an optional member has two, of which
    /// this is the first.
    pub(crate) ordinals: Vec<u16>,
}

impl Laid {
    /// The place of the `index`-th member in the order of declaration.
    pub(crate) fn place(&self, index: usize) -> Place {
        self.layout.places[index]
    }
}

/// Fields side by side, behind `leading` pointers (the call context, the base's state) that come
/// first among the places.
pub(crate) fn fields(leading: usize, fields: &[Field]) -> Laid {
    let mut members = vec![POINTER; leading];
    members.extend(fields.iter().map(|field| request(&field.ty)));
    let mut order: Vec<_> = (0..leading).collect();
    order.resize(members.len(), 0);
    for (index, field) in fields.iter().enumerate() {
        order[leading + usize::from(field.ordinal)] = leading + index;
    }
    laid(Shape::Struct, &members, &order)
}

/// The cases of a union.
pub(crate) fn variants(variants: &[Variant]) -> Laid {
    let void = Request {
        size: Size::Void,
        optional: false,
    };
    let case = |case: &Variant| case.ty.as_ref().map_or(void, request);
    let members: Vec<_> = variants.iter().map(case).collect();
    let mut order = vec![0; members.len()];
    for (index, variant) in variants.iter().enumerate() {
        order[usize::from(variant.ordinal)] = index;
    }
    laid(Shape::Union, &members, &order)
}

/// Members of these types, side by side.
pub(crate) fn types(types: &[&Type]) -> Laid {
    let members: Vec<_> = types.iter().map(|ty| request(ty)).collect();
    let order: Vec<_> = (0..members.len()).collect();
    laid(Shape::Struct, &members, &order)
}

/// What a method answers: its value, if it has one, and the exception it raised, if it can.
pub(crate) fn results(value: Option<&Type>, raises: bool) -> Laid {
    let mut members: Vec<_> = value.map(request).into_iter().collect();
    if raises {
        members.push(POINTER);
    }
    let order: Vec<_> = (0..members.len()).collect();
    laid(Shape::Struct, &members, &order)
}

/// The union of nothing and the exceptions of a method.
pub(crate) fn raised(exceptions: usize) -> Laid {
    let mut members = vec![Request {
        size: Size::Void,
        optional: false,
    }];
    members.resize(exceptions + 1, POINTER);
    let order: Vec<_> = (0..members.len()).collect();
    laid(Shape::Union, &members, &order)
}

/// `order` maps ordinals to members.
fn laid(shape: Shape, members: &[Request], order: &[usize]) -> Laid {
    let by_ordinal: Vec<_> = order.iter().map(|member| members[*member]).collect();
    let mut layout = lay_out(shape, &by_ordinal);
    let mut ordinals = vec![0; members.len()];
    let mut places = layout.places.clone();
    let mut next = 0;
    for (place, &member) in layout.places.iter().zip(order) {
        places[member] = *place;
        ordinals[member] = next;
        next += if members[member].optional { 2 } else { 1 };
    }
    layout.places = places;
    Laid { layout, ordinals }
}
