mod bytes;
mod pair;
mod router;
mod sessions;
mod tables;
