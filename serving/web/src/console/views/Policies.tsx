export const Policies = () => <p>Not built yet.</p>;
