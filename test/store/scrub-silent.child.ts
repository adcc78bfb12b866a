/** A scrub that ends without a word. */
process.disconnect?.();
