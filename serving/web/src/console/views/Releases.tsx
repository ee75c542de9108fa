export const Releases = () => <p>Not built yet.</p>;
