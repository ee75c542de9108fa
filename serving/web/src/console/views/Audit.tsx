export const Audit = () => <p>Not built yet.</p>;
