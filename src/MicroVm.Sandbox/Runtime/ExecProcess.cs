using System.Globalization;
using MicroVm.Oci;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.Runtime;

/// <summary>The process that an exec asks for, by runc's rules.</summary>
internal static class ExecProcess
{
    /// <summary>Builds the process.</summary>
    /// <param name="request">What is asked for.</param>
    /// <param name="pattern">The container's own process.</param>
    /// <exception cref="SpecException">It is malformed.</exception>
    internal static Process Build(ExecRequest request, Process pattern)
    {
        Process process = request.ProcessFile is { } file ? SpecReader.ReadProcess(file) : Changed(request, pattern);
        SpecValidator.ValidateProcess(process);
        return process;
    }

    private static Process Changed(ExecRequest request, Process pattern)
    {
        if (request.Arguments.Count == 0)
        {
            throw new SpecException("process args cannot be empty");
        }

        return pattern with
        {
            Args = [.. request.Arguments],
            Cwd = request.Cwd ?? pattern.Cwd,
            Env = [.. pattern.Env ?? [], .. request.Environment],
            Terminal = request.Tty,
            NoNewPrivileges = request.NoNewPrivileges ?? pattern.NoNewPrivileges,
            User = WithUser(request, pattern.User ?? new User()),
            Capabilities = WithCapabilities(pattern.Capabilities, request.Capabilities),
        };
    }

    private static User WithUser(ExecRequest request, User user)
    {
        if (request.User is { } text)
        {
            string[] parts = text.Split(':', 2);
            user = user with
            {
                Gid = parts.Length > 1 ? Number(parts[1], "gid") : user.Gid,
                Uid = Number(parts[0], "uid"),
            };
        }

        return request.AdditionalGids.Count == 0 ? user
            : user with { AdditionalGids = [.. user.AdditionalGids ?? [], .. request.AdditionalGids.Select(g => Number(g, "gid"))] };
    }

    private static uint Number(string text, string what) =>
        uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out uint number)
            ? number
            : throw new SpecException($"parsing {text} as int for {what} failed: strconv.Atoi: parsing \"{text}\": invalid syntax");

    // Not the inheritable set: a capability there would outlive the process asked for (CVE-2022-29162).
    private static CapabilityNames? WithCapabilities(CapabilityNames? names, IReadOnlyList<string> added) => added.Count == 0 ? names : new CapabilityNames
    {
        Bounding = [.. names?.Bounding ?? [], .. added],
        Effective = [.. names?.Effective ?? [], .. added],
        Permitted = [.. names?.Permitted ?? [], .. added],
        Inheritable = names?.Inheritable,
        Ambient = names?.Ambient,
    };
}
