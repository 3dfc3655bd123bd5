//! RabbitMQ as the queue: jobs, waits, records and dead letters.
//!
//! ```text
//! topology   names and arguments, pure               declare    makes them, once or again
//! link       one connection that comes back by itself, its state, and a probe of its silence
//! publisher  sent means confirmed                    intake     one message for one free slot; delivery: how it ends
//! records    a stream of records, acknowledged up to a tag
//! dead       dead letters, for whoever looks            depth      how much is ready
//! banner     product and version                         canary     proof of the rights that work needs
//! ```
//!
//! What the whole rests on: a message is acknowledged after its effect was confirmed, never before; a broker that is away is
//! waited for, never an end of the process; and nothing that the client library says of a connection is believed without
//! a deadline. The library's own recovery is not used: it leaves confirms pending until it has reconnected, gives up after a
//! number of attempts, and does not revive a consumer whose channel the broker closed.
//!
//! Publishing and consuming have a [`Link`] each, since a broker short of memory or disk stops reading from those who publish, and
//! acknowledgements must still get through then.

mod address;
mod banner;
mod batch;
mod canary;
mod channels;
mod dead;
mod declare;
mod delivery;
pub mod depth;
mod error;
mod intake;
mod link;
mod publisher;
mod records;
mod topology;

pub use address::Address;
pub use banner::banner;
pub use canary::canary;
pub use dead::{DeadLetter, DeadLetters, Held, Origin};
pub use declare::{Declared, declare};
pub use delivery::{Delivery, Settled};
pub use depth::ready;
pub use error::{QueueError, QueueErrorKind};
pub use intake::Intake;
pub use link::{Link, State};
pub use publisher::{Message, Outcome, Publisher};
pub use records::{Arrival, Record, Records, Tag};
pub use topology::{Argument, Queue, Tier, Topology};
