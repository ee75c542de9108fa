export const Overview = () => <p>Not built yet.</p>;
