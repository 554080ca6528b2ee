mod arbitrary;
mod names;
mod net;
mod reach;
