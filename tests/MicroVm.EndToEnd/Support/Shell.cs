using System.Diagnostics;

namespace MicroVm.EndToEnd.Support;

/// <summary>What a finished command left behind.</summary>
internal sealed record CommandResult(int ExitCode, string StandardOutput, string StandardError)
{
    public CommandResult EnsureSuccess() =>
        ExitCode == 0 ? this : throw new InvalidOperationException($"exit status {ExitCode}: {StandardError}{StandardOutput}");

    public override string ToString() => $"exit status {ExitCode}\n--- stdout\n{StandardOutput}\n--- stderr\n{StandardError}";
}

/// <summary>Runs commands to their end.</summary>
internal static class Shell
{
    public static CommandResult Run(string program, params string[] args) => RunWith("", program, args);

    /// <summary>With a standard input of its own.</summary>
    public static CommandResult RunWith(string input, string program, params string[] args)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, args)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        process.StandardInput.Write(input);
        process.StandardInput.Close();
        Task<string> stderr = process.StandardError.ReadToEndAsync();
        string stdout = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return new CommandResult(process.ExitCode, stdout, stderr.Result);
    }
}
