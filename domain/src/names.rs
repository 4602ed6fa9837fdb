//! One name a variant, for people and for the wire: written once, read both ways.

/// Gives an enum of kinds `ALL`, `name`, `parse` and `Display`.
macro_rules! named {
    ($kind:ident { $($variant:ident => $name:literal,)+ }) => {
        impl $kind {
            /// Every one there is, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its stable name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Reads what [`Self::name`] gives; `None` for anything else.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.name())
            }
        }
    };
}

pub(crate) use named;
