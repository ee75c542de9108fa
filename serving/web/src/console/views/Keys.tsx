export const Keys = () => <p>Not built yet.</p>;
