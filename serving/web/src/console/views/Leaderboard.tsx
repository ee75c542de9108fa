export const Leaderboard = () => <p>Not built yet.</p>;
