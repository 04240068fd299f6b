// Fixed clock and seeded randomness for page scripts, so that a replay of a rollout sees the same page.
const FIXED_NOW = Date.UTC(2026, 0, 15, 12, 0, 0);
const RealDate = Date;
window.Date = class extends RealDate {
  constructor(...parts) {
    super(...(parts.length ? parts : [FIXED_NOW]));
  }
  static now() {
    return FIXED_NOW;
  }
};
let randomState = 0x9e3779b9;
Math.random = () => {
  randomState = (randomState + 0x6d2b79f5) | 0;
  let mixed = Math.imul(randomState ^ (randomState >>> 15), 1 | randomState);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
};
