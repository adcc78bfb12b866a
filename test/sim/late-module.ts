/** Only ever imported inside a world, where that is too late. */

/** A name to export. @public */
export const late = true;
