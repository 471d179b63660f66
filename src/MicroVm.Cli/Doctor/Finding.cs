namespace MicroVm.Cli.Doctor;

/// <summary>Outcome of a check.</summary>
internal enum FindingState
{
    /// <summary>There.</summary>
    Ok,

    /// <summary>Worth knowing; nothing that stops containers.</summary>
    Note,

    /// <summary>Required and not there.</summary>
    Missing,
}

/// <summary>One line of <c>doctor</c>: what was looked at, and what was found or what to do.</summary>
internal readonly record struct Finding(FindingState State, string Subject, string Detail);
