namespace MicroVm.Sandbox.Plan;

/// <summary>Environments as lists of NAME=VALUE.</summary>
internal static class ProcessEnvironment
{
    /// <summary>One entry for each name: the last, in its place, as runc has it. What has no name is left alone.</summary>
    internal static List<string> Unique(IReadOnlyList<string> environment)
    {
        HashSet<string> names = new(StringComparer.Ordinal);
        List<string> kept = [];
        for (int i = environment.Count - 1; i >= 0; i--)
        {
            int equals = environment[i].IndexOf('=', StringComparison.Ordinal);
            if (equals <= 0 || names.Add(environment[i][..equals]))
            {
                kept.Add(environment[i]);
            }
        }

        kept.Reverse();
        return kept;
    }
}
