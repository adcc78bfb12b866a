/** A scrub that never ends. */
for (;;);
