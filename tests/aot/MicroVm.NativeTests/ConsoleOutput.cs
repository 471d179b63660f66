using System.Globalization;
using Xunit.Abstractions;

namespace MicroVm.NativeTests;

/// <summary>What tests print, on standard output.</summary>
internal sealed class ConsoleOutput : ITestOutputHelper
{
    /// <inheritdoc/>
    public void WriteLine(string message) => Console.WriteLine(message);

    /// <inheritdoc/>
    public void WriteLine(string format, params object[] args) => Console.WriteLine(string.Format(CultureInfo.InvariantCulture, format, args));
}
