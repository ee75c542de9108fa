export const Rounds = () => <p>Not built yet.</p>;
