/** A scrub that says that all is well, and then crashes. */
process.send?.({ ok: true, records: 1, appliedPosition: 1 }, () => process.exit(3));
