const Z = 1.959963984540054; // of 95 % in the middle of the normal distribution

/** The 95 % interval of a share that was seen in `count` cases (Wilson 1927): it stays within 0 and 1 at their ends. */
export function wilson(share: number, count: number): { low: number; high: number } {
  const slack = Z ** 2 / count;
  const middle = (share + slack / 2) / (1 + slack);
  const half = (Z / (1 + slack)) * Math.sqrt((share * (1 - share)) / count + slack / (4 * count));
  return { low: Math.max(0, middle - half), high: Math.min(1, middle + half) };
}
